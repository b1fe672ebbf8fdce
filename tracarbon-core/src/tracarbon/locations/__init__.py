"""Where the machine is, and the carbon intensity there."""
