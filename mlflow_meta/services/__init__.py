"""The services: one verb a module, each a plain function of a store. None imports another."""
