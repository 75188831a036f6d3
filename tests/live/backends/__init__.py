"""What takes the fence away or apart, on one host of each of Docker's firewall back ends."""
