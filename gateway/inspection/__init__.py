"""`gateway check`, `doctor` and `plan`: reports that need no running gateway."""
