"""The rules of the protocol: functions over a State, a module for each noun. None of them knows the JobServer."""
