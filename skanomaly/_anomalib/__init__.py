"""Loading of what anomalib trained or exported."""
