"""The models that Tally and HPMN are compared with, one file each; only the registry knows them, by name."""
