// Sends standard input with nodemailer.
const fs = require('fs');
const nodemailer = require('nodemailer');

const env = process.env;
const transport = nodemailer.createTransport({
    host: env.SMTP_HOST,
    port: Number(env.SMTP_PORT),
    secure: env.SMTP_TLS === 'implicit',
    requireTLS: env.SMTP_TLS === 'starttls',
    // Else STARTTLS is used wherever it is offered.
    ignoreTLS: env.SMTP_TLS === 'none',
    tls: { ca: fs.readFileSync(env.SMTP_CA) },
    ...(env.SMTP_AUTH !== 'none' && {
        auth: { user: env.SMTP_USER, pass: env.SMTP_PASSWORD },
        authMethod: env.SMTP_AUTH,
    }),
    logger: true,
    debug: true,
});
const envelope = { from: env.SMTP_FROM, to: env.SMTP_TO.split(','), use8BitMime: true };
transport.sendMail({ envelope, raw: fs.readFileSync(0) }).catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
});
