"""Events in: files and topics."""
