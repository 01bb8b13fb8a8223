#!/usr/bin/perl
# A client and a worker on Gearman::Client and Gearman::Worker, driven by the tests line by line.
# The requests, events and behaviours are listed in ../peer.py; every peer of the tests speaks them.

use strict;
use warnings;
use Gearman::Client;
use Gearman::Worker;

$| = 1;

sub say_line { print join("\t", @_), "\n" }

# The library's handles are SERVER//HANDLE.
sub say_created { say_line('created', $_[0] =~ s{^.*//}{}r) }

sub be_client {
    my ($host, $port, $exceptions) = @_;
    my $client = Gearman::Client->new(
        job_servers => ["$host:$port"],
        exceptions  => $exceptions eq 'exceptions' ? 1 : 0,
    );

    my $run = sub {
        my (undef, $priority, $function, $unique, $hex) = @_;
        my $tasks    = $client->new_task_set;
        my $workload = pack 'H*', $hex;
        my $ended    = 0;
        my $handle   = $tasks->add_task($function, \$workload, {
            ($unique eq '' ? () : (uniq => $unique)),
            priority     => $priority,
            on_data      => sub { say_line('data', unpack 'H*', ${ $_[0] }) },
            on_warning   => sub { say_line('warning', unpack 'H*', ${ $_[0] }) },
            on_status    => sub { say_line('status', @_) },
            on_complete  => sub { $ended++; say_line('complete', unpack 'H*', ${ $_[0] }) },
            on_exception => sub { $ended++; say_line('exception', unpack 'H*', $_[0]) },
            on_fail      => sub { $ended++; say_line('fail', '') },
        });
        say_created($handle);
        $tasks->wait;
        say_line('error', unpack 'H*', 'the wait ended without a result') unless $ended;
    };

    my $many = sub {
        my (undef, $count, $function) = @_;
        my $tasks   = $client->new_task_set;
        my $correct = 0;
        for my $i (0 .. $count - 1) {
            my $workload = "number $i";
            $tasks->add_task($function, \$workload,
                { on_complete => sub { $correct++ if ${ $_[0] } eq reverse $workload } });
        }
        $tasks->wait;
        say_line('correct', $correct);
    };

    while (my $line = <STDIN>) {
        chomp $line;
        my @words = split /\t/, $line, -1;
        if ($words[0] eq 'run') {
            $run->(@words);
        }
        elsif ($words[0] eq 'background') {
            my (undef, $priority, $function, $unique, $hex) = @words;
            my $workload = pack 'H*', $hex;
            my $handle   = $client->dispatch_background($function, \$workload,
                { priority => $priority, ($unique eq '' ? () : (uniq => $unique)) });
            say_created($handle);
        }
        elsif ($words[0] eq 'many') {
            $many->(@words);
        }
        elsif ($words[0] eq 'status') {
            my $status = $client->get_status("$host:$port//$words[1]");
            say_line('known', $status->known, $status->running, @{ $status->progress });
        }
    }
}

my $served = 0;

sub serve {
    my ($worker, $job, $behaviour) = @_;
    say_line('taken', unpack 'H*', substr $job->arg, 0, 16);
    if ($behaviour =~ s/^twice-//) {
        $behaviour = 'reverse' if $served++ >= 2;
    }
    if ($behaviour eq 'reverse' || $behaviour eq 'late') {
        select undef, undef, undef, 1.5 if $behaviour eq 'late';
        return scalar reverse $job->arg;
    }
    if ($behaviour eq 'talk') {
        $worker->send_work_data($job, 'first');
        $worker->send_work_warning($job, 'careful');
        $job->set_status(3, 4);
        return 'last';
    }
    if ($behaviour eq 'raise') {
        die $job->arg . "\n";
    }
    if ($behaviour eq 'stall') {
        $job->set_status(1, 9);
        sleep 60 while 1;
    }
    return undef;
}

sub be_worker {
    my ($host, $port, $id, @functions) = @_;
    my $worker = Gearman::Worker->new(job_servers => ["$host:$port"], client_id => $id);
    for my $pair (@functions) {
        my ($name, $behaviour) = split /=/, $pair;
        $worker->register_function($name => sub { serve($worker, $_[0], $behaviour) });
    }
    $worker->work while 1;
}

my ($role, @arguments) = @ARGV;
$role eq 'client' ? be_client(@arguments) : be_worker(@arguments);
