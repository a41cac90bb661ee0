"""Pure decisions. The clock, the dice and the network are brought to them as arguments."""
