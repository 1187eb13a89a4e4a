"""The subcommands of `tokengrid`, one module each: they ask the services and show the answers. They decide nothing."""
