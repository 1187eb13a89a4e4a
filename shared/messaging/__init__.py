"""The messaging floor: how services are called, follow each other and are run, over RabbitMQ or in one process.

`patch` first, before anything else is imported; then:

| module | for |
|---|---|
| `rpc` | `@rpc`: a service's methods, safe against bad messages, drained on stop |
| `lane` | `@lane`: one method that serves the requests of many callers at once |
| `client` | `Client`: call a service from anywhere; `Peers`: call one from within a service |
| `log_service` | `LogService`: a service that exposes its event log |
| `follower` | `@follow("quota")`: apply another service's log, page by page |
| `prompts` | `Prompt`: tell followers that the log has grown |
| `tracing` | `Tracing`: one trace from the client through every service |
| `runner` | `serving`, `serve_forever`: run services embedded, or as a process |
| `inproc` | the in-process broker, `inproc://` |

Beneath them: `link` (a connection that comes back), `transport` (AMQP's frames, many at a time), `calls`
(answers matched to requests), `wire` (a service's own link), `consuming` (the request queue's consumer), `acks`
(what it has in hand), `batches`, `shard_queues` and `parts` (what waits in a lane, who owns a shard, a batch of
several shards), `inproc_broker` and `inproc_channel`, `codec`, `known_errors`.

It must know nothing of what the services mean.
"""
