"""Many runs under one budget, and what may be concluded from them."""
