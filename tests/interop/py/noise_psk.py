"""One side of a Noise_XXpsk3 handshake by the noiseprotocol package: hex lines in, hex lines out.

    noise_psk.py initiator|responder PSK STATIC_KEY PAYLOAD

Handshake messages in turn; then one line to decrypt, whose plaintext is sent back encrypted.
"""

import sys

from noise.connection import Keypair, NoiseConnection

role, psk, static, payload = sys.argv[1], *map(bytes.fromhex, sys.argv[2:])
noise = NoiseConnection.from_name(b"Noise_XXpsk3_25519_ChaChaPoly_SHA256")
noise.set_psks(psk)
noise.set_as_initiator() if role == "initiator" else noise.set_as_responder()
noise.set_keypair_from_private_bytes(Keypair.STATIC, static)
noise.start_handshake()
sending, number = role == "initiator", 1
while not noise.handshake_finished:
    if sending:
        print(noise.write_message(payload if number > 1 else b"").hex(), flush=True)
    else:
        noise.read_message(bytes.fromhex(sys.stdin.readline()))
    sending, number = not sending, number + 1
print(noise.encrypt(noise.decrypt(bytes.fromhex(sys.stdin.readline()))).hex(), flush=True)
