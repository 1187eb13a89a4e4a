"""The front door: command line, local runner, private servers, demo and benchmark. Imports may only go down from here."""
