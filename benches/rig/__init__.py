"""What benches/images and benches/run share."""
