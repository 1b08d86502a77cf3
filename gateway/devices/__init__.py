"""The devices of the machine, the claims of models, and the placement of replicas."""
