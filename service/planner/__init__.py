"""How many replicas a load needs: queueing formulas over the measured costs of the stages. Serves nothing."""
