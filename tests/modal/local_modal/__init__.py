"""Modal without Modal: an offline stand-in for the platform, on one machine, without an account.

    python -m tests.modal.local_modal inspect FILE       what the platform would be told, as JSON
    python -m tests.modal.local_modal up FILE [options]  deploy FILE and serve it until Ctrl-C

A gRPC server on the loopback interface answers the calls of Modal's own client. Each container is a
process of that client's own container runtime, with a root folder of its own in which /root holds only
the files that the app mounted. So a source that was not added is missed, as on Modal; the snapshot's
hooks, streams, cancelling, retries and a machine's death go through the code that runs there too.

It differs from Modal where it has to:

- Images are recorded and not built: a package that the image lacks is missed only if the containers'
  interpreter lacks it too. So are CPU, memory, GPUs and regions.
- A snapshot is the handshake alone: each container goes through it, nothing is frozen or copied.
- Volumes are folders whose writes are seen at once. Containers share the host's network and /tmp.
- Inputs are tried again here rather than in the client. `--idle` stands for `scaledown_window`.
- What `modal_app.py` has no use for is missing: such a call fails at once with its name.

Written from what the package `modal` ships: `modal_proto`, and the client itself.
"""
