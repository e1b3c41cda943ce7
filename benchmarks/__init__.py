"""What inspection costs, measured on the machine at hand; each module prints one table."""
