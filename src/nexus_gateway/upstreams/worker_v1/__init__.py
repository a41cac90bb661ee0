"""The generated stubs of nexus.worker.v1: edit proto/nexus/worker/v1/worker.proto and run `make proto`."""
