"""Models on Amazon SageMaker: trained and retrained by its jobs, served by its endpoints."""
