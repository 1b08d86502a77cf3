"""Client protocols: requests are parsed and checked, events become bytes. Pure: no I/O, no clock."""
