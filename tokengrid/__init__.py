"""The front door: command line, local runner, private servers, demo and benchmark. It may import all."""
