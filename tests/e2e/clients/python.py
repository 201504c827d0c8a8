"""Sends standard input with Python's smtplib."""
import os
import smtplib
import ssl
import sys

env = os.environ
host, port = env["SMTP_HOST"], int(env["SMTP_PORT"])
trusting = ssl.create_default_context(cafile=env["SMTP_CA"])

if env["SMTP_TLS"] == "implicit":
    client = smtplib.SMTP_SSL(host, port, context=trusting)
else:
    client = smtplib.SMTP(host, port)
with client:
    client.set_debuglevel(1)
    if env["SMTP_TLS"] == "starttls":
        client.starttls(context=trusting)
    client.ehlo()
    if env["SMTP_AUTH"] == "PLAIN":
        client.login(env["SMTP_USER"], env["SMTP_PASSWORD"])
    elif env["SMTP_AUTH"] == "LOGIN":
        # login() takes PLAIN where both are offered.
        client.user, client.password = env["SMTP_USER"], env["SMTP_PASSWORD"]
        client.auth("LOGIN", client.auth_login)
    recipients = env["SMTP_TO"].split(",")
    refused = client.sendmail(env["SMTP_FROM"], recipients, sys.stdin.buffer.read(), ["BODY=8BITMIME"])
    assert not refused, refused
