"""The paths of the server. A module here with a `router` is served; with `JOBS`, its durable work is carried out."""
