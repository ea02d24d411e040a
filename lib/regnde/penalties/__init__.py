"""What can be done with a solve's knowledge of its error: the menu of regularizers."""
