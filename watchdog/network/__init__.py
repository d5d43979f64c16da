"""What the two clients that speak HTTP share: byte streams, connections, and what verifies a certificate.

It knows neither ZEGO nor the webhook: no URL and no request is made here, and no reply understood.
"""
