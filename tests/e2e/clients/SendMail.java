// Sends standard input with Jakarta Mail. What is trusted is the JVM's own matter: -Djavax.net.ssl.trustStore=FILE.
import jakarta.mail.Session;
import jakarta.mail.Transport;
import jakarta.mail.internet.InternetAddress;
import jakarta.mail.internet.MimeMessage;
import java.util.Properties;

public class SendMail {
    public static void main(String[] arguments) throws Exception {
        var env = System.getenv();
        var logsIn = !env.get("SMTP_AUTH").equals("none");
        var settings = new Properties();
        settings.put("mail.smtp.host", env.get("SMTP_HOST"));
        settings.put("mail.smtp.port", env.get("SMTP_PORT"));
        settings.put("mail.smtp.from", env.get("SMTP_FROM"));
        settings.put("mail.smtp.ssl.checkserveridentity", "true");
        settings.put("mail.debug", "true");
        switch (env.get("SMTP_TLS")) {
            case "starttls" -> settings.put("mail.smtp.starttls.required", "true");
            case "implicit" -> settings.put("mail.smtp.ssl.enable", "true");
            default -> { }
        }
        if (logsIn) {
            settings.put("mail.smtp.auth", "true");
            settings.put("mail.smtp.auth.mechanisms", env.get("SMTP_AUTH"));
        }
        var session = Session.getInstance(settings);
        var message = new MimeMessage(session, System.in);
        try (Transport transport = session.getTransport("smtp")) {
            if (logsIn) {
                transport.connect(env.get("SMTP_USER"), env.get("SMTP_PASSWORD"));
            } else {
                transport.connect();
            }
            transport.sendMessage(message, InternetAddress.parse(env.get("SMTP_TO")));
        }
    }
}
