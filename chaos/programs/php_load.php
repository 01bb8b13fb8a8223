<?php
// A client and a worker on php-gearman; the same words and files as c_load.c, told in load.py.

const TIMEOUT = 2000; // milliseconds

[, $role, $name, $path, $servers] = $argv;
$file = fopen($path, 'ab');

function now(): float
{
    return hrtime(true) / 1e9;
}

function tell(string $format, ...$words): void
{
    global $file;
    fwrite($file, sprintf($format, ...$words) . "\n");
}

function be_client(string $name, array $servers, int $pause): void
{
    for ($number = 1;; array_push($servers, array_shift($servers))) { // each server in its turn
        $client = new GearmanClient();
        foreach ($servers as $server) {
            $client->addServer(...explode(':', $server), setupExceptionHandler: false); // which would ask it at once
        }
        $client->setTimeout(TIMEOUT);
        for ($left = 200, $result = GEARMAN_SUCCESS; $left && $result === GEARMAN_SUCCESS; $left--, $number++) {
            $id = "$name-$number";
            $fails = (int) ($number % 7 === 0);
            $way = ['doHighBackground', 'doLowBackground', 'doBackground', 'doBackground'][$number % 4];
            $handle = @$client->$way($fails ? 'retry' : 'quick', "$id:" . $number % 5 . ":$fails", $number % 3 ? $id : null);
            $result = $client->returnCode();
            $at = now();
            if ($result === GEARMAN_SUCCESS) {
                tell('%.6f A %s %s %.6f', $at, $id, $handle, $at);
            }
            usleep($pause * 1000);
        }
    }
}

function be_worker(string $servers, array $functions): void
{
    $failed = [];
    $work = function (GearmanJob $job) use (&$failed): string {
        [$id, $milliseconds, $fails] = explode(':', $job->workload());
        tell('%.6f B %s %s', now(), $id, $job->handle());
        usleep((int) $milliseconds * 1000);
        $fails = $fails && !isset($failed[$id]);
        tell('%.6f %s %s %s', now(), $fails ? 'F' : 'D', $id, $job->handle());
        if ($fails) {
            $failed[$id] = true;
            $job->setReturn(GEARMAN_WORK_FAIL);
        }
        return '';
    };
    for (;;) {
        $worker = new GearmanWorker();
        $worker->addServers($servers);
        $worker->setTimeout(TIMEOUT);
        foreach ($functions as $function) {
            $worker->addFunction($function, $work);
        }
        do {
            @$worker->work();
            $again = [GEARMAN_SUCCESS, GEARMAN_WORK_FAIL, GEARMAN_TIMEOUT, GEARMAN_NO_JOBS, GEARMAN_IO_WAIT];
        } while (in_array($worker->returnCode(), $again, true));
        unset($worker);
        usleep(100_000);
    }
}

if ($role === 'client') {
    be_client($name, explode(',', $servers), (int) $argv[5]);
} else {
    be_worker($servers, array_slice($argv, 5));
}
