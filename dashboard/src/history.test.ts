import { describe, expect, it } from "vitest";
import { curvesOf, last, type Told } from "./history";

const told: Told = {
  function: null,
  folded: false,
  step: 5,
  times: [100, 105, 110],
  series: { completed: [10, null, 20], waiting: [1, 2, 3], waiting_time_p95: [0.1, null, 0.2] },
};

describe("curves", () => {
  it("tell counts as rates, and all else as it comes", () => {
    expect(curvesOf(told)).toEqual({
      step: 5,
      times: [100, 105, 110],
      series: { completed: [2, null, 4], waiting: [1, 2, 3], waiting_time_p95: [0.1, null, 0.2] },
    });
  });

  it("go on with what was told since, over as many intervals", () => {
    const points = [
      { time: 114, values: { completed: 1000, waiting: 9 } }, // within the last interval of the history
      { time: 116, values: { completed: 4, waiting: 4 } },
      { time: 118, values: { completed: 6, waiting: 5 } },
      { time: 121, values: { completed: 8, waiting: 6 } },
    ];
    expect(curvesOf(told, points)).toEqual({
      step: 5,
      times: [110, 115, 120],
      series: { completed: [4, 5, 8], waiting: [3, 5, 6], waiting_time_p95: [0.2, null, null] },
    });
  });

  it("have a gap where nothing was told", () => {
    const curves = curvesOf(told, [{ time: 122, values: { completed: 8, waiting: 6 } }]);
    expect(curves.series["completed"]).toEqual([4, null, 8]);
  });

  it("may be empty", () => {
    expect(curvesOf({ ...told, times: [], series: { completed: [] } }, [{ time: 9, values: {} }]).times).toEqual([]);
  });

  it("know their last value", () => {
    expect([last([1, 2, null]), last([null]), last(undefined)]).toEqual([2, null, null]);
  });
});
