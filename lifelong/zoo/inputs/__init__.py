"""What only models of the zoo compute from histories: repeats, label means, co-occurrences, features of targets."""
