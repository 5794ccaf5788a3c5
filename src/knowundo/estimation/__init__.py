"""Memory of a run, estimated before anything is trained."""
