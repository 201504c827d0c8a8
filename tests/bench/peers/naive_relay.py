"""The relay that many write for themselves: one SMTP submission upstream for each message, before the client's 250.

It has no queue, no retries and no token refresh: the token is read from a file once. It stands in the benchmark for
the scripts that a relay replaces; it is not part of xoauth2-relay and not meant for use.
"""

import argparse
import asyncio
import base64
import signal
import smtplib
import ssl

from aiosmtpd.controller import UnthreadedController


class Forward:
    """Sends each message on and answers with what came of it."""

    def __init__(self, options, token):
        self.options = options
        self.tls = ssl.create_default_context(cafile=options.ca_file)
        login = f"user={options.user}\x01auth=Bearer {token}\x01\x01"
        self.login = base64.b64encode(login.encode()).decode()

    async def handle_DATA(self, server, session, envelope):
        try:
            await asyncio.to_thread(self.send, envelope)
        except (OSError, smtplib.SMTPException) as error:
            print(f"not sent: {error}", flush=True)
            return "451 4.4.0 upstream did not take it"
        return "250 2.0.0 sent"

    def send(self, envelope):
        with smtplib.SMTP("localhost", self.options.upstream_port, timeout=60) as upstream:
            upstream.starttls(context=self.tls)
            upstream.ehlo()
            code, text = upstream.docmd("AUTH", f"XOAUTH2 {self.login}")
            if code != 235:
                raise smtplib.SMTPAuthenticationError(code, text)
            upstream.sendmail(envelope.mail_from, envelope.rcpt_tos, envelope.content)


async def serve(options):
    with open(options.token_file, encoding="ascii") as file:
        token = file.read().strip()
    controller = UnthreadedController(
        Forward(options, token),
        hostname="127.0.0.1",
        port=options.port,
        data_size_limit=options.largest_message,
        loop=asyncio.get_running_loop(),
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # `begin` would run the loop that is running already.
    controller.server = await controller._create_server()
    await stop.wait()
    controller.server.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream-port", type=int, required=True)
    parser.add_argument("--ca-file", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--token-file", required=True)
    parser.add_argument("--largest-message", type=int, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
