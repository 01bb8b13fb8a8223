/** Icons: strokes in the colour of the words beside them, and nothing to be read aloud. */

const PATHS = {
  overview: "M3 12h4l3-8 4 16 3-8h4",
  functions:
    "M9 4c-2.5 0-3 1.5-3 3v2.500c0 1.500-1 2.500-2.500 2.500 1.500 0 2.500 1 2.500 2.500V17c0 1.500.5 3 3 3M15 4c2.500 0 3 1.500 3 3v2.500c0 1.500 1 2.500 2.500 2.500-1.500 0-2.500 1-2.500 2.500V17c0 1.500-.5 3-3 3",
  jobs: "M4 5h16v14H4zM4 10h16M9 10v9",
  dead: "M4 7l2-3h12l2 3v13H4zM4 7h16M9 12l6 5M15 12l-6 5",
  workers:
    "M12 8.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 1 0 0-7zM12 3v2.5M12 18.5V21M3 12h2.5M18.5 12H21M5.6 5.6l1.8 1.8M16.6 16.6l1.8 1.8M18.4 5.6l-1.8 1.8M7.4 16.6l-1.8 1.8",
  schedules: "M12 3a9 9 0 1 0 0 18 9 9 0 1 0 0-18zM12 7v5l3.5 2",
  playground: "M7 4.5v15l12-7.5z",
  settings: "M4 7h9M17 7h3M15 5v4M4 17h3M11 17h9M9 15v4M4 12h3M11 12h9M9 10v4",
  audit: "M6 3h9l4 4v14H6zM9.5 12h6M9.5 16h6M9.5 8h2",
  more: "M4.5 7h15M4.5 12h15M4.5 17h15",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 1 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  screen: "M3 5h18v11H3zM9 20h6M12 16v4",
  leave: "M10 4H5v16h5M14 8l4 4-4 4M18 12H9",
  pause: "M9 5v14M15 5v14",
  resume: "M8 5v14l11-7z",
  run: "M5.500 5.500v13L15 12zM18.500 5.500v13",
  retry: "M19.5 12a7.5 7.5 0 1 1-2.2-5.3L20 9.5M20 4.5v5h-5",
  unplug: "M9 3v5M15 3v5M6 8h12v3a6 6 0 0 1-12 0zM12 17v4M4 21L20 5",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  check: "M4.5 12.5l5 5 10-11",
  alert: "M12 4l9.5 16h-19zM12 10v4.5M12 17.2v.1",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 1 0 0-14zM16.2 16.2L21 21",
  close: "M6 6l12 12M18 6L6 18",
  edit: "M4 20l1-4L16.5 4.5l3 3L8 19zM14 7l3 3",
  book: "M5 4h11a3 3 0 0 1 3 3v13H8a3 3 0 0 1-3-3zM5 17a3 3 0 0 1 3-3h11",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
