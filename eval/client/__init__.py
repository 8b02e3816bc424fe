"""One server that speaks OpenAI's protocol: requests with retries, a budget and a ledger."""
