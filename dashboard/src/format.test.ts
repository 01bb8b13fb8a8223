import { describe, expect, it } from "vitest";
import { ago, bytes, count, duration, NOTHING, percent, plural, quoted, rate } from "./format";

describe("numbers", () => {
  it("counts with separators, and shortens from a million on", () => {
    expect([0, 999, 1234, 999_949, 1_000_000, 2_500_000_000].map(count)).toEqual([
      "0",
      "999",
      "1,234",
      "999,949",
      "1.0 M",
      "2.5 G",
    ]);
  });
  it("gives a rate a decimal while it is small", () => {
    expect([0, 0.4, 12, 99.94, 100, 20_000].map(rate)).toEqual(["0", "0.4", "12.0", "99.9", "100", "20,000"]);
  });
  it("writes shares in percent, and never rounds a little to nothing", () => {
    expect([0, 0.0001, 0.0123, 0.5, 1].map(percent)).toEqual(["0 %", "< 0.1 %", "1.2 %", "50.0 %", "100 %"]);
  });
  it("knows one and many", () => {
    expect([plural(1, "job"), plural(2, "job"), plural(0, "copy", "copies")]).toEqual(["1 job", "2 jobs", "0 copies"]);
  });
  it("shows what is not known as a dash", () => {
    expect([count(null), rate(undefined), percent(null), duration(null), bytes(null)]).toEqual(Array(5).fill(NOTHING));
  });
});

describe("durations", () => {
  it.each([
    [0, "0 s"],
    [0.0002, "< 1 ms"],
    [0.0025, "2.5 ms"],
    [0.25, "250 ms"],
    [0.9996, "1.0 s"],
    [3.24, "3.2 s"],
    [9.96, "10 s"],
    [59.6, "1 min"],
    [250, "4 min 10 s"],
    [7500, "2 h 5 min"],
    [3600, "1 h"],
    [187_200, "2 d 4 h"],
  ])("%d s is %s", (seconds, text) => {
    expect(duration(seconds)).toBe(text);
  });
});

describe("sizes", () => {
  it.each([
    [0, "0 B"],
    [512, "512 B"],
    [1536, "1.5 KiB"],
    [67_108_864, "64.0 MiB"],
    [1023.97 * 1024, "1.0 MiB"],
    [2 ** 40, "1.0 TiB"],
  ])("%d is %s", (value, text) => {
    expect(bytes(value)).toBe(text);
  });
});

describe("how long ago", () => {
  it("is in whole seconds, and from ten on as spans are", () => {
    expect([0.2, 1.7, 9.9, 75].map(ago)).toEqual(["just now", "1 s ago", "9 s ago", "1 min 15 s ago"]);
    expect([ago(null), ago(undefined)]).toEqual([NOTHING, NOTHING]);
  });
});

describe("a name for a shell", () => {
  it("is quoted where it has to be", () => {
    expect([quoted("mail.send"), quoted("a b"), quoted("it's")]).toEqual(["mail.send", "'a b'", "'it'\\''s'"]);
  });
});
