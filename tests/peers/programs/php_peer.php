<?php
// A client and a worker on php-gearman, driven by the tests line by line.
// The requests, events and behaviours are listed in ../peer.py; every peer of the tests speaks them.

function say(string ...$words): void
{
    echo implode("\t", $words), "\n";
    flush();
}

function be_client(string $host, int $port, bool $exceptions): void
{
    $client = new GearmanClient();
    $client->addServer($host, $port, false); // the third, if left out, asks the server for exceptions
    $ended = false;
    $correct = null;
    $client->setCreatedCallback(function (GearmanTask $task) use (&$correct): void {
        if ($correct === null) {
            say('created', $task->jobHandle());
        }
    });
    $client->setDataCallback(function (GearmanTask $task): void {
        say('data', bin2hex($task->data()));
    });
    $client->setWarningCallback(function (GearmanTask $task): void {
        say('warning', bin2hex($task->data()));
    });
    $client->setStatusCallback(function (GearmanTask $task): void {
        say('status', $task->taskNumerator(), $task->taskDenominator());
    });
    $client->setCompleteCallback(function (GearmanTask $task, $expected = null) use (&$ended, &$correct): void {
        $ended = true;
        if ($correct === null) {
            say('complete', bin2hex($task->data()));
        } elseif ($task->data() === $expected) {
            $correct++;
        }
    });
    if ($exceptions) {
        $client->setExceptionCallback(function (GearmanTask $task) use (&$ended): void { // asks for them too
            $ended = true;
            say('exception', bin2hex($task->data()));
        });
    }
    $client->setFailCallback(function (GearmanTask $task) use (&$ended): void {
        $ended = true;
        say('fail', '');
    });
    $run = function (bool $background) use ($client, &$ended): void {
        $ended = $background;
        if (!@$client->runTasks() || !$ended) {
            say('error', bin2hex((string) $client->error()));
        }
    };
    $ways = [
        'run' => ['high' => 'addTaskHigh', 'normal' => 'addTask', 'low' => 'addTaskLow'],
        'background' => [
            'high' => 'addTaskHighBackground',
            'normal' => 'addTaskBackground',
            'low' => 'addTaskLowBackground',
        ],
    ];

    while (($line = fgets(STDIN)) !== false) {
        $words = explode("\t", rtrim($line, "\n"));
        switch ($words[0]) {
            case 'run':
            case 'background':
                [$request, $priority, $function, $unique, $hex] = $words;
                $add = $ways[$request][$priority];
                $client->$add($function, hex2bin($hex), null, $unique === '' ? null : $unique);
                $run($request === 'background');
                break;
            case 'many':
                $correct = 0;
                for ($i = 0; $i < (int) $words[1]; $i++) {
                    $client->addTask($words[2], "number $i", strrev("number $i"));
                }
                $run(false);
                say('correct', $correct);
                $correct = null;
                break;
            case 'status':
                say('known', ...array_map('intval', $client->jobStatus($words[1])));
                break;
        }
    }
}

function serve(GearmanJob $job, string $behaviour)
{
    static $served = 0;
    say('taken', bin2hex(substr($job->workload(), 0, 16)));
    if (str_starts_with($behaviour, 'twice-')) {
        $behaviour = $served++ < 2 ? substr($behaviour, 6) : 'reverse';
    }
    switch ($behaviour) {
        case 'late':
            usleep(1500000);
            return strrev($job->workload());
        case 'reverse':
            return strrev($job->workload());
        case 'talk':
            $job->sendData('first');
            $job->sendWarning('careful');
            $job->sendStatus(3, 4);
            return 'last';
        case 'raise':
            $job->sendException($job->workload());
            $job->setReturn(GEARMAN_WORK_EXCEPTION);
            return null;
        case 'stall':
            $job->sendStatus(1, 9);
            while (true) {
                sleep(60);
            }
        default:
            $job->setReturn(GEARMAN_WORK_FAIL);
            return null;
    }
}

function be_worker(string $host, int $port, string $id, array $functions): void
{
    $worker = new GearmanWorker();
    $worker->addServer($host, $port);
    $worker->setId($id);
    foreach ($functions as $pair) {
        [$name, $behaviour] = explode('=', $pair);
        $worker->addFunction($name, fn (GearmanJob $job) => serve($job, $behaviour));
    }
    while (true) {
        @$worker->work();
        if (in_array($worker->returnCode(), [GEARMAN_COULD_NOT_CONNECT, GEARMAN_NO_SERVERS])) {
            exit(1);
        }
    }
}

[, $role, $host, $port, $extra] = $argv;
if ($role === 'client') {
    be_client($host, (int) $port, $extra === 'exceptions');
} else {
    be_worker($host, (int) $port, $extra, array_slice($argv, 5));
}
