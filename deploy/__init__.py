"""What builds, installs and runs atsk8s on a machine: standard library only, never imported by the product."""
