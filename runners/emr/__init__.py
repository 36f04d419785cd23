"""The pipeline on Amazon EMR: a package of the job and of what its nodes need, a cluster for it, and its submission."""
