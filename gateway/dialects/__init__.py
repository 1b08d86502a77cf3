"""Protocols of clients, one file each: a request read and checked, events in, bytes out. Pure: no I/O, no clock."""
