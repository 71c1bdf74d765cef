"""The service on Ray Serve: replicas of the whole of it, or one deployment a stage. Nothing else here knows Ray."""
