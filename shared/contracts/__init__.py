"""The published language: every event and command that leaves a service.

`base` has the envelope and the field types; one module a service has its events and commands;
`schema` derives a marshmallow schema from each and explains what is wrong with a bad one.
"""
