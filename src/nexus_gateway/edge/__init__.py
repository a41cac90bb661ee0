"""Server adapters: bytes in, bytes out. The only room that knows status codes and the OpenAI error object."""
