# Sends standard input with Perl's Net::SMTP.
use strict;
use warnings;
use Authen::SASL;
use Net::SMTP;

my %tls = (SSL_ca_file => $ENV{SMTP_CA}, SSL_verify_mode => 1);
my $client = Net::SMTP->new(
    $ENV{SMTP_HOST},
    Port  => $ENV{SMTP_PORT},
    Debug => 1,
    ($ENV{SMTP_TLS} eq 'implicit' ? (SSL => 1, %tls) : ()),
) or die "no connection: $@\n";

sub check { my ($went_well) = @_; $went_well or die $client->code, ' ', $client->message, "\n" }

check($client->starttls(%tls)) if $ENV{SMTP_TLS} eq 'starttls';
if ($ENV{SMTP_AUTH} ne 'none') {
    # auth($user, $password) would let the library choose.
    my %answers = (user => $ENV{SMTP_USER}, authname => '', pass => $ENV{SMTP_PASSWORD});
    check($client->auth(Authen::SASL->new(mechanism => $ENV{SMTP_AUTH}, callback => \%answers)));
}
check($client->mail($ENV{SMTP_FROM}, Bits => 8));
check($client->to(split /,/, $ENV{SMTP_TO}));
check($client->data(<STDIN>));
$client->quit;
