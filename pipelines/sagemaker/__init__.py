"""Models on Amazon SageMaker: scored by an endpoint, served by the functions its containers look for."""
