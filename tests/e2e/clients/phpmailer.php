<?php
// Sends standard input as the text of a message with PHPMailer, which writes the header itself.
require 'libphp-phpmailer/autoload.php';

use PHPMailer\PHPMailer\PHPMailer;
use PHPMailer\PHPMailer\SMTP;

$mail = new PHPMailer(true);
$mail->isSMTP();
$mail->SMTPDebug = SMTP::DEBUG_SERVER;
$mail->Host = getenv('SMTP_HOST');
$mail->Port = (int) getenv('SMTP_PORT');
$mail->SMTPSecure = ['none' => '', 'starttls' => 'tls', 'implicit' => 'ssl'][getenv('SMTP_TLS')];
// Else STARTTLS is used wherever it is offered.
$mail->SMTPAutoTLS = false;
$mail->SMTPOptions = ['ssl' => ['cafile' => getenv('SMTP_CA')]];
if (getenv('SMTP_AUTH') !== 'none') {
    $mail->SMTPAuth = true;
    $mail->AuthType = getenv('SMTP_AUTH');
    $mail->Username = getenv('SMTP_USER');
    $mail->Password = getenv('SMTP_PASSWORD');
}
[$to, $bcc] = explode(',', getenv('SMTP_TO'));
$mail->setFrom(getenv('SMTP_FROM'));
$mail->addAddress($to);
$mail->addBCC($bcc);
$mail->CharSet = PHPMailer::CHARSET_UTF8;
$mail->Encoding = PHPMailer::ENCODING_8BIT;
$mail->Subject = getenv('SMTP_SUBJECT');
$mail->Body = stream_get_contents(STDIN);
$mail->send();
