"""Pure functions of arrays: the equations of the paper, without configuration, modules or hidden state."""
