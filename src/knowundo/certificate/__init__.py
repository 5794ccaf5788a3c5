"""The certificate of an unlearned model: evidence, verdict, signature, and their verification."""
