"""What the tests run against: pod networks, a real control plane, real backends and a real traffic_server."""
