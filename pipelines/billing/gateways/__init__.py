"""Payment gateways behind one protocol: `stripe`, the simulator `test`, and `manual`."""
