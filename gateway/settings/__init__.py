"""Settings from gateway.toml, the environment and flags as one frozen value; the address to listen on."""
