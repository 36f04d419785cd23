"""Decision policies: thresholds by cost, by segment and by a budget, compared on weeks they were not chosen on."""
