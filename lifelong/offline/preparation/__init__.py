"""Raw logs in: from files of events to a prepared dataset."""
